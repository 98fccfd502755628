"""MPS: devices whose configuration asks for it, and shares of devices that are offered as MPS replicas.

What shares one control daemon is a group (``dra_driver.mps.group``). The supervisor runs the daemons; here it is
decided which groups a claim needs, what is refused, what containers see, and who is told when a daemon dies.
"""
