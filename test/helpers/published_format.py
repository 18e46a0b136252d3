"""Small data sets in the exact published formats, for the tests of their loaders."""

import json

import numpy as np
from PIL import Image
from scipy.io import savemat


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_image(path, width, height):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)


def spair_image(name, category, keypoints, size=(60, 40), box=(5, 5, 45, 35)):
    """The keys of an image annotation of SPair-71k; labels without position are null."""
    return {
        "filename": f"{name}.jpg", "src_database": "PASCAL VOC2012", "src_annotation": "PASCAL VOC2012", "src_image": "flickr",
        "image_width": size[0], "image_height": size[1], "image_depth": 3, "category": category, "category_id": 0,
        "pose": "Left", "truncated": 0, "occluded": 0, "difficult": 0, "azimuth_id": 2, "bndbox": list(box),
        "kps": {str(k): keypoints.get(k) for k in range(30)},
    }  # fmt: skip


def spair_pair(source, target, category, ids, **levels):
    """The keys of a pair annotation of SPair-71k, for two image annotations."""
    content = {"filename": "", "category": category, "mirror": 0, "viewpoint_variation": 1, "scale_variation": 0, "truncation": 0}
    content |= {"occlusion": 0, "kps_ids": [str(i) for i in ids]} | levels
    for side, image in (("src", source), ("trg", target)):
        content[f"{side}_imname"] = image["filename"]
        content[f"{side}_imsize"] = [image["image_width"], image["image_height"], 3]
        content[f"{side}_bndbox"], content[f"{side}_pose"] = image["bndbox"], image["pose"]
        content[f"{side}_kps"] = [image["kps"][str(i)] for i in ids]
    return content


def write_spair(root, category="cat"):
    """SPair-71k with one category, three images, two test pairs (small layout: one), a trn and a val pair."""
    images = {
        "2008_000001": spair_image("2008_000001", category, {0: [10, 12], 1: [20, 22], 4: [30, 8]}),
        "2008_000002": spair_image("2008_000002", category, {0: [11, 13], 4: [31, 9], 14: [40, 30]}, size=(50, 80)),
        "2009_000003": spair_image("2009_000003", category, {2: [3, 3]}),
    }
    for name, content in images.items():
        write_json(root / "ImageAnnotation" / category / f"{name}.json", content)
        write_image(root / "JPEGImages" / category / f"{name}.jpg", content["image_width"], content["image_height"])
    names = list(images)
    lists = {"test": [(0, 1, [0, 4]), (0, 2, [])], "val": [(1, 0, [0, 4])], "trn": [(1, 2, [])]}
    for split, pairs in lists.items():
        listed = []
        for number, (a, b, ids) in enumerate(pairs, start=1):
            listed.append(f"{number:06d}-{names[a]}-{names[b]}:{category}")
            content = spair_pair(images[names[a]], images[names[b]], category, ids, viewpoint_variation=2, occlusion=3)
            write_json(root / "PairAnnotation" / split / f"{listed[-1]}.json", content | {"filename": listed[-1]})
        for layout, chosen in (("large", listed), ("small", listed[:1])):
            (root / "Layout" / layout).mkdir(parents=True, exist_ok=True)
            (root / "Layout" / layout / f"{split}.txt").write_text("\n".join(chosen) + "\n")
    palette = Image.fromarray(np.pad(np.full((10, 20), 8, np.uint8), ((20, 10), (20, 20))), mode="P")
    palette.putpalette([0, 0, 0, *([0] * 21), 64, 0, 0])
    (root / "Segmentation" / category).mkdir(parents=True, exist_ok=True)
    palette.save(root / "Segmentation" / category / "2008_000001.png")
    return root


def ap10k_content(species, first_id):
    """COCO-like content of one AP-10K annotation file; ``species``: [(name, family, number of images)]."""
    rng, content = np.random.default_rng(first_id), {"info": {}, "licenses": [], "images": [], "annotations": [], "categories": []}
    key = first_id
    for number, (name, family, count) in enumerate(species, start=1):
        content["categories"].append({"id": number, "name": name, "supercategory": family, "keypoints": [], "skeleton": []})
        for _ in range(count):
            visible = rng.choice([0, 1, 2], 17, p=[0.2, 0.1, 0.7])
            flat = [int(v) for k in range(17) for v in ((10 + k, 20 + 2 * k, visible[k]) if visible[k] else (0, 0, 0))]
            image = {"id": key, "file_name": f"{key:012d}.jpg", "width": 64, "height": 80, "license": 1, "background": 1}
            annotation = {"id": 1000 + key, "image_id": key, "category_id": number, "bbox": [5, 6, 40, 30], "area": 1200, "iscrowd": 0}
            content["images"].append(image)
            content["annotations"].append(annotation | {"keypoints": flat, "num_keypoints": int((visible > 0).sum())})
            key += 1
    return content


def write_ap10k_download(root):
    """The extracted archive of AP-10K with three species of two families, 36 images each, and the crowd list."""
    species = [("fox", "Canidae", 12), ("cat", "Felidae", 12), ("king cheetah", "Felidae", 12)]
    for number, part in enumerate(("train", "test", "val")):
        write_json(root / "annotations" / f"ap10k-{part}-split1.json", ap10k_content(species, 1 + 100 * number))
    (root / "data").mkdir()
    (root / "ap-10k_is_crowd.txt").write_text("000000000001\n000000000101\n")
    return root


def write_ap10k_prepared(root):
    """What the published preparation makes of AP-10K: two species of a family and three pairs."""
    content = ap10k_content([("cat", "Felidae", 2), ("lion", "Felidae", 1)], 1)
    for image, annotation, species in zip(content["images"], content["annotations"], ("cat", "cat", "lion"), strict=True):
        folder = f"ImageAnnotation/Felidae/{species}"
        kind = {"name": species, "supercategory": "Felidae"}
        write_json(root / folder / f"{image['id']:012d}.json", annotation | image | kind)
        write_image(root / "JPEGImages" / "Felidae" / species / image["file_name"], 64, 80)
    ends = [f"data/ap-10k/ImageAnnotation/Felidae/{s}/{i:012d}.json" for s, i in (("cat", 1), ("cat", 2), ("lion", 3))]
    for split, a, b, label in (("test", 0, 1, "cat"), ("test_cross_species", 0, 2, "Felidae"), ("test_cross_species", 1, 2, "Felidae")):
        name = f"{a + 1:012d}-{b + 1:012d}:{label}"
        write_json(root / "PairAnnotation" / split / f"{name}.json", {"src_json_path": ends[a], "trg_json_path": ends[b]})
    return root


def write_pf_pascal(root):
    """PF-PASCAL with two categories, three images, and the lists of the three splits."""
    keypoints = np.array([[10.5, 12.25], [np.nan, np.nan], [30.0, 8.0]])
    for category, name in (("bird", "2008_000001"), ("bird", "2008_000002"), ("cat", "2009_000003")):
        write_image(root / "JPEGImages" / f"{name}.jpg", 60, 40)
        (root / "Annotations" / category).mkdir(parents=True, exist_ok=True)
        box = np.array([[5.0, 6.0, 45.0, 30.0]])
        savemat(root / "Annotations" / category / f"{name}.mat", {"kps": keypoints, "bbox": box, "class": category, "imageHeight": 40})
    path = "PF-dataset-PASCAL/JPEGImages/"
    row = f"{path}2008_000001.jpg,{path}2008_000002.jpg,3,10.5;30.0,12.25;8.0,11.5;31.0,13.25;9.0"
    (root / "test_pairs_pf_pascal.csv").write_text(f"source_image,target_image,class,XA,YA,XB,YB\n{row}\n")
    (root / "val_pairs_pf_pascal.csv").write_text(f"source_image,target_image,class,XA,YA,XB,YB\n{row}\n")
    row = f"{path}2008_000001.jpg,{path}2008_000002.jpg,3,0"
    (root / "train_pairs_pf_pascal.csv").write_text(f"source_image,target_image,class,flip\n{row}\n")
    return root


def write_pf_willow(root):
    """PF-WILLOW with two categories (brackets in their names) and one pair each."""
    header = "imageA,imageB," + ",".join(f"{axis}{side}{k}" for side in "AB" for axis in "XY" for k in range(1, 11))
    rows = [header]
    for category in ("car(G)", "winebottle(woC)"):
        for name in ("060_0036", "060_0041"):
            write_image(root / category / f"{name}.png", 50, 70)
        xs, ys = np.arange(10) * 3.5 + 1, np.arange(10) * 2.25 + 2
        values = ",".join(str(v) for v in (*xs, *ys, *(xs + 1), *(ys + 2)))
        rows.append(f"PF-dataset/{category}/060_0036.png,PF-dataset/{category}/060_0041.png,{values}")
    (root / "test_pairs_pf.csv").write_text("\n".join(rows) + "\n")
    return root


def write_caltech(root):
    """Caltech-101 with two categories, one of which has another name among the annotations, and one pair."""
    contour = np.array([[1.0, 21.0, 21.0, 1.0], [2.0, 2.0, 12.0, 12.0]])
    for category, folder in (("accordion", "accordion"), ("Faces", "Faces_2")):
        for number in (1, 2):
            write_image(root / "101_ObjectCategories" / category / f"image_{number:04d}.jpg", 60, 50)
            (root / "Annotations" / folder).mkdir(parents=True, exist_ok=True)
            content = {"box_coord": np.array([[10, 30, 5, 40]], np.uint16), "obj_contour": contour}
            savemat(root / "Annotations" / folder / f"annotation_{number:04d}.mat", content)
    (root / "101_ObjectCategories" / "BACKGROUND_Google").mkdir()
    path, polygon = "caltech-101/101_ObjectCategories/accordion/", '"6,26,26,6","12,12,22,22"'
    header = "source_image,target_image,class,XA,YA,XB,YB"
    rows = [header, f'{path}image_0001.jpg,{path}image_0002.jpg,1,{polygon},"7,27,27,7","13,13,23,23"']
    (root / "test_pairs_caltech_with_category.csv").write_text("\n".join(rows) + "\n")
    return root
