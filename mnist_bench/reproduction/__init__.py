"""The published experiments, trained again over several seeds and held against what was reported.

`reproduce.py` is the way in. Data flows from `published` (what was reported) and `plan` (which runs
there have to be) through `campaign` (training them) and `evidence` (what they left, as three CSV
files) to what `report` joins: `tables` (the last epochs), `intervals` and `agreement` (every
epoch), `last_epochs`, `comparisons`, `pairs`, `findings` and `figures`.
"""
