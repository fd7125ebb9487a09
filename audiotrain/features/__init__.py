"""Audio files and what is computed from them.

audio.py            Audio files as float32 mono arrays
augment.py          Random changes of features, labels and audio that leave the task the same
av_source.py        Audio that PyAV decodes
beats.py            Beats and downbeats, from onsets and chords
cache.py            Features on disk
containers.py       What files say of their parts where decoders do not look
cqt.py              Constant-Q transform in MLX, equal to librosa 0.11
extract.py          Features of recordings in MLX, equal to librosa 0.11
joined_source.py    The links of a chained Ogg file as one recording
log_mel.py          Log-mel spectrograms in MLX
onsets.py           Onsets of notes
sndfile_source.py   Audio that libsndfile reads whole
sources.py          What the decoders share
tags.py             Title and artist of a recording by its tags
tuning.py           How far a recording is from A = 440 Hz
"""
