"""The experiments of the FairNeuron paper, run again, with the paper's figures beside ours.

``fairneuron.reproduce`` is the function; ``fairneuron reproduce`` is its command.
"""
