"""What others exchange with us: configuration, custom resources, the kubelet's protocols. Imports nothing of ours."""
