"""Instructions as vectors: text encoders, none of which needs a network connection."""

from robot_policies.language import encoders, packaged
from robot_policies.language.embedding import InstructionEmbedding, text_encoders

__all__ = ["InstructionEmbedding", "encoders", "packaged", "text_encoders"]
