"""Archives for the servers of benchmarks whose test labels are secret."""

from allweather.submit.archive import Submission, submit
from allweather.submit.servers import BENCHMARKS, Benchmark

__all__ = ["BENCHMARKS", "Benchmark", "Submission", "submit"]
