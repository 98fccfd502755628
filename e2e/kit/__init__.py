"""What the suites are written with: a namespace of one's own, what a container sees, what is left on a node, reports.

Nothing here knows which cluster it runs on, and nothing here asserts anything but that what it waits for comes.
"""
