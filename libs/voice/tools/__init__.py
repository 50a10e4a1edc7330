"""What can be done with voice files besides speaking? Look, try, mix, convert, extract, index, pack, unpack."""

from libs.voice.tools.convert import convert_file
from libs.voice.tools.extract import extract_voice
from libs.voice.tools.indexing import build_rvc_index, write_total_features
from libs.voice.tools.inspect import ModelInfo, count_weights, inspect_model
from libs.voice.tools.merge import merge_voices
from libs.voice.tools.pack import write_archive
from libs.voice.tools.unpack import ArchiveContents, open_archive
from libs.voice.tools.verify import Verification, verify_voice

__all__ = [
    "ArchiveContents",
    "ModelInfo",
    "Verification",
    "build_rvc_index",
    "convert_file",
    "count_weights",
    "extract_voice",
    "inspect_model",
    "merge_voices",
    "open_archive",
    "verify_voice",
    "write_archive",
    "write_total_features",
]
