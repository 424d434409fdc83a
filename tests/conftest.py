"""What holds for every test."""

from hypothesis import settings

# How long one example takes is the machine's business: what has to be fast is measured by benchmarks/.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
