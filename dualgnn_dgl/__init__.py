"""DualGNN for micro-video recommendation on DGL: missing modalities, per-user attention, user co-occurrence.

Shape letters used everywhere: **U** users, **I** items (micro-videos), **E** edges, **F** raw feature width,
**D** embedding width, **M** modalities, **B** batch, **K** list length.

The journey is four calls: raw log + features ─preprocess→ `Dataset` ─graph→ DGL heterograph
─`model.embed()`→ tables (U, D) and (I, D) ─`evaluation.top_k`→ lists (U, K).
"""

__version__ = "0.2.0"
