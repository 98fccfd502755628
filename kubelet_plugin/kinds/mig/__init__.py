"""MIG on this node: instances made for claims and taken away again, and those that nobody's claim made.

``place`` names a MIG device's place on the hardware, ``hardware`` is what can be done there; ``steps`` are the side
effects of a prepare and ``runners`` do them; ``planning`` decides which are needed; ``owners`` tells whose an instance
is; ``foreign`` and ``published`` make of a reading what the node tells the controller. ``layout`` brings a static GPU
to its named layout, ``layout_applier`` decides when.
"""
