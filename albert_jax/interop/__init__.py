"""Interoperability: weights and configurations of Hugging Face and of the released TF1 code."""
