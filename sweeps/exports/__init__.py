"""Runs as other trackers have them: TensorBoard, MLflow, Weights & Biases. Each is a file with a `write`."""
