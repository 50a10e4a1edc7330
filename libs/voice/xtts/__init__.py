"""XTTS: a text-to-speech network that is fine-tuned on clips of one speaker and their texts."""
