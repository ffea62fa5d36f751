"""Through the load balancer: legs paired, capture clocks aligned, host clocks told apart."""
