"""Names and files of others, to and from our parameters. Knows trees and JSON, no models."""
