"""The report of runs: one HTML file that needs nothing else. A module a figure or table; `page` puts them together."""
