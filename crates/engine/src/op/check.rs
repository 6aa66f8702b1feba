//! Whether what belongs to an op fits what is edited.

use super::asked::Op;
use super::joint::Joint;
use super::kind::{Axis, OpKind, Setting, Subspace, Takes};
use super::operation::Operation;
use super::parameters::{Parameters, Problem};
use candle_core::{DType, Tensor};
use causalcone_model::{Indices, nearest};

/// How far the products of a rotation's columns may be from 0 and 1: rounding, and a finite difference.
const ORTHOGONAL: f64 = 1e-2;

impl Op {
    /// Checks the op against vectors of that width (numbers of one position, or of all that is joint).
    /// `dims` are a subspace of the op's own basis.
    ///
    /// # Errors
    /// When it lacks something or has too much, its tensors do not fit the width or one another, or are
    /// no such tensors as the op needs.
    pub fn operation(&self, width: usize, dims: Option<&Indices>) -> Result<Operation, Problem> {
        let info = self.kind.info();
        let op = || format!("op \"{}\"", info.name);
        match (info.value, &self.value) {
            (Takes::Must, None) => {
                let message = format!("{} ({}) needs a value", op(), info.formula);
                let hint = match self.kind {
                    OpKind::Mean => {
                        "write value = { mean = \"RUN\", examples = \"FILE\" } for the mean over a data set"
                    }
                    _ => "write value = { run = \"RUN\" } to take it from another run",
                };
                return Err(Problem { message, hint: Some(hint.into()) });
            }
            (Takes::No, Some(_)) => return Err(format!("{} ({}) takes no value", op(), info.formula).into()),
            _ => {}
        }
        if let Some((_, name)) = self.settings.given().find(|(setting, _)| !info.settings.contains(setting)) {
            return Err(format!("{} has no {name}", op()).into());
        }
        self.check_bounds()?;
        let rank = self.check_parameters(width)?;
        let subspace = match (dims, info.subspace) {
            (None, _) => None,
            (Some(_), Subspace::None) => {
                let problem = format!("{} has no subspace: it says itself how much of what changes", op());
                return Err(problem.into());
            }
            (Some(dims), _) => {
                let found = dims.resolve("dimension", rank.unwrap_or(width));
                Some(found.map_err(|e| Problem { message: e.to_string(), hint: e.hint() })?.into())
            }
        };
        Ok(Operation {
            kind: self.kind,
            custom: self.custom.clone(),
            parameters: self.parameters.clone(),
            subspace,
            joint: self.joint,
            settings: self.settings,
        })
    }

    fn check_bounds(&self) -> Result<(), Problem> {
        let (min, max) = (self.settings.min(), self.settings.max());
        if !self.kind.info().settings.contains(&Setting::Bounds) {
            return Ok(());
        }
        if min.is_none() && max.is_none() {
            let hint = Some("max = 4.0 caps the coordinate along the value's direction".into());
            return Err(Problem { message: "clamp needs min, max or both".into(), hint });
        }
        if let Some(x) = [min, max].into_iter().flatten().find(|x| !(*x as f32).is_finite()) {
            return Err(format!("bound {x} is not a finite number").into());
        }
        match (min, max) {
            (Some(min), Some(max)) if min > max => Err(format!("min {min} is more than max {max}").into()),
            _ => Ok(()),
        }
    }

    /// Checks the tensors; gives the op's own number of coordinates, where it has one.
    fn check_parameters(&self, width: usize) -> Result<Option<usize>, Problem> {
        let info = self.kind.info();
        if let Some((name, _)) = self.parameters.iter().find(|(name, _)| info.parameter(name).is_none()) {
            let known: Vec<&str> = info.parameters.iter().map(|parameter| parameter.name).collect();
            let has = if known.is_empty() { "none".into() } else { known.join(", ") };
            let hint = nearest(name, known).map(|near| format!("did you mean \"{near}\"?"));
            let message = format!("op \"{}\" has no parameter \"{name}\"; it has {has}", info.name);
            return Err(Problem { message, hint });
        }
        let mut rank = None;
        for parameter in info.parameters {
            let (op, name) = (info.name, parameter.name);
            let Some(tensor) = self.parameters.get(name) else {
                if parameter.default.is_some() {
                    continue;
                }
                return Err(format!("op \"{op}\" needs the parameter \"{name}\"").into());
            };
            let size = |(i, axis): (usize, &Axis)| match axis {
                Axis::Width => width,
                Axis::Rank => *rank.get_or_insert_with(|| tensor.dims().get(i).copied().unwrap_or(1)),
            };
            let fits: Vec<usize> = parameter.shape.iter().enumerate().map(size).collect();
            if tensor.dims() != fits {
                return Err(self.misfit(name, tensor, &fits, width).into());
            }
            if tensor.elem_count() == 0 {
                return Err(format!("\"{name}\" of op \"{op}\" is empty").into());
            }
            if let Some(rank) = rank.filter(|rank| parameter.orthogonal && *rank > width) {
                let most = format!("more than the width {width} of what is edited");
                return Err(format!("\"{name}\" has rank {rank}, {most}").into());
            }
        }
        match self.parameters.numbers(self.kind) {
            Some(problem) => Err(problem.into()),
            None => Ok(rank),
        }
    }

    fn misfit(&self, name: &str, tensor: &Tensor, fits: &[usize], width: usize) -> String {
        let together = match self.joint {
            Some(Joint::All) => ", all its heads and positions together".into(),
            Some(joint) => format!(", all its {} together", joint.name()),
            None => String::new(),
        };
        let has = format!("\"{name}\" has shape {:?}, where {fits:?} fits", tensor.dims());
        format!("{has}: what is edited is {width} wide{together}")
    }
}

impl Parameters {
    /// What is wrong with the numbers, whatever the width: looked at once, since it takes long.
    fn numbers(&self, kind: OpKind) -> Option<String> {
        self.checked
            .get_or_init(|| self.find_wrong(kind).unwrap_or_else(|e| Some(format!("cannot be read: {e}"))))
            .clone()
    }

    fn find_wrong(&self, kind: OpKind) -> candle_core::Result<Option<String>> {
        for (name, tensor) in self.iter() {
            let numbers = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            if let Some(x) = numbers.iter().find(|x| !x.is_finite()) {
                return Ok(Some(format!("\"{name}\" holds {x}, where only finite numbers fit")));
            }
            if matches!(name, "temperature" | "std") && numbers.iter().any(|x| *x <= 0.0) {
                let everywhere = if name == "std" { " everywhere" } else { "" };
                return Ok(Some(format!("\"{name}\" must be more than 0{everywhere}")));
            }
            if kind.info().parameter(name).is_some_and(|parameter| parameter.orthogonal) {
                let off = causalcone_ops::distance_from_orthogonal(tensor)?;
                if off > ORTHOGONAL {
                    let how = format!("up to {off:.3} away from those of orthonormal ones");
                    return Ok(Some(format!("\"{name}\" is no rotation: products of its columns are {how}")));
                }
            }
        }
        Ok(None)
    }
}
