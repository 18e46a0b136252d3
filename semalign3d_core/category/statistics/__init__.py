"""Beta statistics of scale-free geometric features (paper section 3.1)."""
