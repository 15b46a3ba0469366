"""The same builds as jobs of Apache Beam, on many machines."""
