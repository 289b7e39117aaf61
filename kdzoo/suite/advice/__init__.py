"""What to try for a pair of networks, before anything is trained, from what benches have measured."""
