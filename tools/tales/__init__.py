"""Training of the embedded tales model: corpus, network, optimizer, loop, export."""
