"""nvidia-cuda-mps-control of a simulated node: real processes, the real command language, and clients of its servers.

    control   the program: options, becoming a daemon, the loop of the daemon
    daemon    what the daemon knows and decides: servers, who waits for one, what a command answers (``commands``)
    server    one nvidia-cuda-mps-server, a process of its own: the clients that are connected to it, and their limits
    direct    a client without MPS, as compute mode lets it be one
    pipes     the pipe directory and how one speaks through it; ``link`` how daemon and server do
    presence  whether a process that has taken devices is still there
    devices   what the state file says of GPUs and MIG devices, and which processes use them
    ui        the command language where a shell has not the tools for it
    scripts   the shell programs in the node's file tree, which also run in containers

Protocol 3, which drivers know from r615 on (``protocols``), beside it; protocol 2 knows nothing of it:

    named_daemon    its daemon: ``named_server``s, and clients that come through a ``namespace_folder``
    named_commands  its commands, in the form of ``named_language``
    namespace       the limits of a namespace, and what a client gets there
    named_scripts   what the shell programs have besides

The real daemon listens on Unix sockets. These are FIFOs, so that a shell can speak through the pipe directory too: a
container has neither Python nor the state file. Nothing here imports pydantic: the daemon is to start in milliseconds.
"""
