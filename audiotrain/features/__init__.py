"""Audio files and what is computed from them.

audio.py            Audio files as float32 mono arrays
augment.py          Random changes of features, labels and audio that leave the task the same
beats.py            Beats and downbeats, from onsets and chords
cache.py            Features on disk
cqt.py              Constant-Q transform in MLX, equal to librosa 0.11
decoder_messages.py Messages of libmpg123, kept from the terminal
extract.py          Features of recordings in MLX, equal to librosa 0.11
log_mel.py          Log-mel spectrograms in MLX
mp3_header.py       What the header of an MP3 states of its length
onsets.py           Onsets of notes
tags.py             Title and artist of a recording by its tags
tuning.py           How far a recording is from A = 440 Hz
"""
