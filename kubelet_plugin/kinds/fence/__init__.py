"""Fractions of a device, fenced: what is refused, what holds a share to what was counted for it, what containers see.

Each backend (``api.fractions.SharingBackend``) is one ``FenceTool``; the strongest that the node has is used. What a
share is held to is in the journal, so it is undone as it was made, whatever the node has by then.
"""
