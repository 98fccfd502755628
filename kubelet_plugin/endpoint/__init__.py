"""What the kubelet talks to: sockets, servers, registration, the DRA service, and the checks that they still answer."""
