"""Structured allocation of devices as kube-scheduler does it: API dictionaries in, frozen results out, no I/O.

Follows k8s.io/dynamic-resource-allocation/structured (incubating variant, 1.36+). Knows neither hardware nor kube; the
embedded scheduler and the command line feed it with lists of objects.
"""
