"""Reports of runs: self-contained HTML pages with curves, samples, settings, and costs."""
