"""What is made of a trained model: the published weights, the model card, docs/RESULTS.md and the ablation."""
