"""The folder of a training, from which it goes on."""
