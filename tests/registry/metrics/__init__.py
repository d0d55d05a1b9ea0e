"""What is counted, where the numbers are kept, and the page that Prometheus reads."""
