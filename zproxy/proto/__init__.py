"""What protoc makes of the .proto files beside it: `make gen` writes it, `make gen-check` compares."""
