"""The key names of a push message, which nothing that an operator names may be spelled like."""

_ENVELOPE_KEYS = {"code", "data", "id", "message"}
_DATA_KEYS = {
    "size",
    "version",
    "url",
    "md5",
    "sign",
    "signMethod",
    "isDiff",
    "module",
    "digestsign",
    "extData",
}
_STREAM_KEYS = {"dProtocol", "streamId", "streamFileId"}
_FILE_KEYS = {"files", "fileSize", "fileName", "fileUrl", "fileMd5", "fileSign"}

# A text search for a key would stop at a value that is spelled like it.
KEY_NAMES = frozenset(_ENVELOPE_KEYS | _DATA_KEYS | _STREAM_KEYS | _FILE_KEYS)
