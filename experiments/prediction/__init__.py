"""Prediction: pre-trained and fine-tuned models applied to texts."""
