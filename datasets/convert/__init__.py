"""Photos with positions -> a folder of `@UTM` names: `python3 -m datasets.convert`."""
