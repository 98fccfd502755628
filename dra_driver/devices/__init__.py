"""Machine and policy to allocatable devices: names, attributes, capacities, order. Pure functions over frozen values.

``allocatable.allocatable_devices`` is the way in; ``model`` holds what comes out and ``slices`` turns into API objects.
"""
