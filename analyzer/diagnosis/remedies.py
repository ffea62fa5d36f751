"""What to do about each cause: the exact setting, where, and what it does not change."""

REMEDIES = {
    "peer_timestamp": (
        "On the server set net.ipv4.tcp_tw_recycle=0; it acts at once, running connections are not touched. "
        "Do not switch tcp_timestamps off instead: from 3.17 and on RHEL 7.3+ that drops every SYN of a remembered "
        "peer for up to a minute. Kernels from 4.12 have no tcp_tw_recycle. More SNAT addresses only dilute the loss."
    ),
    "time_wait_paws": (
        "Keep the load balancer from reusing a source port within 60 s of the server's close: a larger SNAT pool, "
        "sequential ports, or a hold-down of at least 60 s. Or let the client side close first, so that TIME-WAIT "
        "stays off the server. The load balancer must forward the server's bare ACK and the client's RST."
    ),
    "time_wait_sequence": (
        "Port reuse met a TIME-WAIT without timestamps to save it: keep timestamps on along the path, and hold ports "
        "back for at least 60 s at the load balancer."
    ),
    "established_collision": (
        "The load balancer forgets connections before the server does: raise its idle timeout above the server's "
        "(or enable keepalives), let it send RSTs to both sides when it times a flow out, and hold ports back."
    ),
    "accept_queue_full": (
        "The application accepts too slowly: look at it first, then raise the backlog in listen() together with "
        "net.core.somaxconn."
    ),
    "syn_queue_full": "Enable net.ipv4.tcp_syncookies=1, and raise net.ipv4.tcp_max_syn_backlog and the backlog.",
    "server_silent": (
        "The SYN reached this capture point and no rule of the kernel's TCP explains the silence: look at the host's "
        "firewall, reverse-path filter, conntrack table and routes (nstat, iptables -vL, conntrack -S)."
    ),
    "refused": "Nothing listens on that port, or something on the path resets: look at ss -ltn and the firewall.",
    "unreachable": "An ICMP error came back: look at the firewall's REJECT rules and at routing.",
    "no_evidence": "Capture on the server and on the load balancer at the same time, from a minute before the failure.",
}

REFUTATIONS = {
    "peer_timestamp": "One SYN answered while it lies inside the reject region, or a counter "
    '(PAWSPassive, "passive connections rejected because of time stamp") that does not rise with these SYNs.',
    "time_wait_paws": "A bare ACK whose TSecr is not the remembered TSval, or PAWSEstab/PAWSTimewait that do not rise.",
    "time_wait_sequence": "A TIME-WAIT that had expired before the SYN.",
    "established_collision": "A close of the old connection that the capture missed.",
    "accept_queue_full": "ListenOverflows that does not rise with these SYNs.",
    "syn_queue_full": "ListenDrops that does not rise with these SYNs.",
    "server_silent": "A SYN-ACK in another capture, or a counter of the kernel that rises with these SYNs.",
    "refused": "A listener that accepted others at the same moment.",
    "unreachable": "None: the ICMP error is in the capture.",
    "no_evidence": "A second capture or the host's counters would settle it.",
}
