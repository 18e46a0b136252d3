"""SFNet: Learning Object-aware Semantic Correspondence (Lee et al., CVPR 2019): dense flow between two objects, learned from masks alone."""
