"""SFNet: Learning Object-aware Semantic Correspondence (Lee et al., CVPR 2019): dense flow, learned from masks alone."""
