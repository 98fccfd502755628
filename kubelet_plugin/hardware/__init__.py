"""The node's hardware as the plugin has it: set up, read again and again, its events."""
