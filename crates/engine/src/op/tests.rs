use super::*;
use candle_core::Device;

#[test]
fn every_kind_has_its_row_and_its_formula() {
    let (b, v) = (3.0, 5.0);
    let tensor = |x: f64| Tensor::new(&[[x]], &Device::Cpu).unwrap();
    for (kind, scale, expected) in [
        (OpKind::Swap, 1.0, 5.0),
        (OpKind::Add, 2.0, 13.0),
        (OpKind::Subtract, 2.0, -7.0),
        (OpKind::Zero, 1.0, 0.0),
        (OpKind::Mean, 1.0, 5.0),
        (OpKind::Skip, 1.0, 5.0),
        (OpKind::Noise, 2.0, 13.0),
        (OpKind::Scale, 2.0, 6.0),
        (OpKind::Collect, 1.0, 3.0),
        (OpKind::Custom, 1.0, 9.0),
    ] {
        assert_eq!(kind.info().kind, kind);
        let operation = Operation { custom: Some(Arc::new(Tensor::sqr)), ..Operation::plain(kind) };
        let result = operation.apply(scale, &tensor(b), Some(&tensor(v))).unwrap();
        assert_eq!(result.to_vec2::<f64>().unwrap(), [[expected]], "{}", kind.info().name);
    }
}

#[test]
fn names_and_kinds_are_there_once() {
    for info in &OPS {
        assert_eq!(OPS.iter().filter(|other| other.name == info.name || other.kind == info.kind).count(), 1);
        assert!(std::ptr::eq(info.kind.info(), info));
        assert_eq!(OpKind::by_name(info.name), Some(info.kind));
    }
}
