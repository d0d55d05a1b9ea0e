"""The image, built and run by docker without any registry of images: `make image-test`, as root."""
