"""The thing under test: modules, processes, network devices."""
