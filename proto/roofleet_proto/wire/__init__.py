"""Generated protobuf code and the .proto files it comes from; only the codecs beside it import it."""
