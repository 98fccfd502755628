"""The MPS supervisor: a small process beside the kubelet plugin that starts, observes and stops MPS control daemons.

It owns daemons and what they need (folders, tmpfs, compute mode, cgroup) and decides nothing about claims; it has no
Kubernetes access. The daemons outlive it: the next supervisor finds them by their records.

    service      gRPC on the socket, for the plugin (``api/mps``)
    supervisor   the groups by id, one at a time each; ``validation`` what is refused before anything is done
    share_calls  the shares of groups of protocol 3, in their group's turn; ``running`` how both are known
    group_steps  what is made for a group, in order, and how it is removed; ``record`` what is on disk about it
    daemon       one control daemon: started, asked, ended; ``control`` how commands reach it
    named        its server and its shares, with protocol 3; ``named_answers`` the words, ``probe`` who speaks it
    surroundings where its program is and what it sees around it; ``namespaces`` and ``cgroups`` make that true
    adoption     what earlier supervisors left
    observer     daemons that end, daemons and servers that do not answer; ``looks`` what that means
"""
