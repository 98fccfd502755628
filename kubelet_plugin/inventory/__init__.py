"""The node's NodeInventory: its content, and the loop that keeps it on the server."""
