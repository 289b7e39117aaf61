"""The words by which a user says where a network comes from. Free of torch."""

from __future__ import annotations

SAVED = "saved:"
"""what begins the words for a saved teacher"""
HF = "hf:"
"""what begins the words for a folder in Hugging Face's form"""
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")
"""how the name of a file of weights ends"""
