"""The whole estate, simulated: clients, load balancers, servers, with ground truth."""
