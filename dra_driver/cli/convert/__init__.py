"""``gpu-dra convert``: manifests that ask for GPUs the old ways become claims. Text in, text out; no cluster is asked.

``documents`` and ``yaml_text`` read and write, ``workloads`` finds the pods, ``reading`` says what their containers ask
for. Dialects make ``Ask`` values of that (``model``): ``device_plugin``, ``vgpu`` (HAMi and Volcano), ``kai``;
``placement`` is what HAMi and Volcano say about where. ``claims`` writes claim templates for asks, ``rewriting`` the
workload, ``plugin_config`` what the device plugin's ConfigMap means, ``quotas`` what becomes of a ResourceQuota or
LimitRange. ``converting`` puts it all together, ``commands`` declares the command line.
"""
