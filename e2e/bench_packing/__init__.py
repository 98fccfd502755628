"""What packing MIG devices across GPUs costs on a real API server and kube-scheduler, beside packing GPU by GPU."""
