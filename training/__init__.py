"""How the network is trained: transformers' Trainer on an endless stream."""
